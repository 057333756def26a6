"""Imported by the fork server alone: it pays math-verify's first use once for all workers."""

from rewards.graders import COMPARE, resolve

resolve(COMPARE)
