"""Tasks: what there is to do, and what has to be so around it, wherever it is done.

plan           which stage runs where            task        a stretch of stages over one block
supply         what goes along with it           asides      what comes back beside it
surroundings   the settings of a process         versions    of a program's own modules
threads        those of this process             background  one that runs ahead
"""
