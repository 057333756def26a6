"""Imported by the fork server, so that math-verify's first use is paid once for all workers."""

from microbudget_rl.rewards.pool import compared

compared(r"\sqrt{2}", r"\frac{2}{\sqrt{2}}")
