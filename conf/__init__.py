"""Configuration. Begin with `schema`, which declares every setting, and `load`, which makes a Config of a command line
and a recipe. `settings` says what a setting is, and `checks` which ones do not go together. `command` is the frame of
all commands; `arguments` reads the words of those that take no settings, and `parsing` files of JSON and YAML. A
command imports `first` before all else.
"""
