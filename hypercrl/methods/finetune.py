"""One network trained on and on: the lower reference of every metric."""

from hypercrl.methods.gradient import SharedMethod


class Finetune(SharedMethod):
    """One shared trunk that every task trains on, and a new linear head per task.

    Nothing protects the trunk: an old head meets features that have moved.
    """

    ensembles = True
    conditionings = ("input", "film")
