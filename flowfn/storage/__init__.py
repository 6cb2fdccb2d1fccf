"""Storage: files, here or behind URLs; what is in them is for `flowfn.formats` and `flowfn.image`.

finding       which are meant                    files          opened, by the process that reads them
signatures    what they are by first bytes      damage        what goes wrong with them, in one form
in_order      read from beginning to end         compression, unpacking   compressed as a whole;  archives: zip files
writing       whole or not at all                unfinished     where they lie until then
ends          flows that a file has room for     hushing        one bar for many files
"""
