"""Rewards. Begin with `weighted_sum`, the reward of a sample, and `pool`, which verifies groups in the processes of
`killable_worker`. `verify` compares answers, and `problems` reads data. `user_function` calls users' functions, which
`shipped` brings from a notebook and `isolation` confines; `judge` is one of them. `actor` puts the pool on Ray.
"""
