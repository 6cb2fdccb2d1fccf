"""Programs that the tests start need their frameworks at once, and are collected by nobody."""

collect_ignore_glob = ["[!t]*.py", "t[!e]*.py"]
