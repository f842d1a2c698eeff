"""Which heads look at the region more when the object is there?"""
