"""Several processes that train one model together, one for each GPU of the site: data parallel training.

    rank 0      the trainer: it alone talks to the daemon, decides on budget and cancel, and delivers the update
    the others  hold the same task and the same model, follow its trainings, and take their slice of every batch

A task needs no change: it calls its model, its loss and backward() as it always does. What may not be trained so is
refused with its reason, see `team` and `gradients`. Every rank loads the task and its data: memory is needed for each.
"""
