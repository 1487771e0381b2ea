"""What notebooks need: find runs, embed one, read the results of many, probe them.

The command does more, keeps what it made, and can be stopped and started; these functions return what they find.
"""
