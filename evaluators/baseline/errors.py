"""What a baseline cannot be made of, or what a folder of baselines refuses."""


class BaselineError(Exception):
    """One line: what is wrong and what would be right."""
