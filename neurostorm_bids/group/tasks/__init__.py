"""The tasks of the group level, a file each; `neurostorm_bids.group.task` says what a file has to hold."""
