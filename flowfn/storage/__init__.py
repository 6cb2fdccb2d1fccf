"""Storage: files, here or behind URLs; what is in them is for `flowfn.formats` and `flowfn.image`.

finding       which are meant                    files          opened, by the process that reads them
signatures    what they are by first bytes      damage        what goes wrong with them, in one form
in_order      read from beginning to end         archives       zip files
compression   compressed, by the suffix          unpacking      decompressed, by first bytes
writing       whole or not at all                unfinished     where they lie until then
endless       flows that no file has room for    bars           one for many files
recent        what was wanted last
"""
