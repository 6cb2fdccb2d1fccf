"""Worker processes.

processes   the workers, each with a loky executor of its own      pool       those of this process, kept warm
answering   what one does with a task                              program    what it is told before its first
starting    what a process needs to start another                  deaths     how they end
logs        what is logged in them
"""
