"""The exams of a sweep: its benchmarks by base model and trained policies, beside the paper's figures and claims."""
