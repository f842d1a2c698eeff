"""The questions that headpatch answers: a package holds the whole story of one."""
