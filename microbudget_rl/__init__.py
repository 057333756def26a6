"""Reinforcement learning with verifiable rewards for one GPU and one day."""
