"""What has been said to both models, and what each has said."""

from typing import Any

from actors.messages import Problem
from conf.errors import BadInput
from conf.schema import Config
from rewards.problems.chat import render

SIDES = ("base", "trained")

Messages = list[dict[str, str]]


class Conversation:
    """One list of messages for each model: the same questions, its own answers."""

    def __init__(self, config: Config, tokenizer: Any) -> None:
        """config: whose prompts are as long as a conversation may become."""
        self._config = config
        self._tokenizer = tokenizer
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        system = self._config.data.system
        first = [] if system is None else [{"role": "system", "content": system}]
        self._messages: dict[str, Messages] = {side: list(first) for side in SIDES}

    def ask(self, text: str) -> dict[str, Problem]:
        """Return the conversations up to a question as prompts. Raises BadInput if one has become too long."""
        return {side: self._prompt([*said, message("user", text)]) for side, said in self._messages.items()}

    def answered(self, text: str, answers: dict[str, str]) -> None:
        """Keep a question and the answers to it."""
        for side, said in self._messages.items():
            said += [message("user", text), message("assistant", answers[side])]

    def alone(self, text: str) -> Problem:
        """Return a problem as the run poses its own, outside of the conversation. Raises BadInput if it is too long."""
        return self._sized(render([], text, self._config.data, self._tokenizer))

    def _prompt(self, messages: Messages) -> Problem:
        settings = self._config.data.chat_settings
        return self._sized(
            self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, **settings)
        )

    def _sized(self, prompt: str) -> Problem:
        ids = self._tokenizer(prompt, add_special_tokens=False)["input_ids"]
        if len(ids) > (longest := self._config.rollout.max_prompt_tokens):
            raise BadInput(
                f"the conversation has {len(ids)} tokens, and there is room for {longest}: begin anew by /new"
            )
        return Problem("", prompt, tuple(ids), "")


def message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
