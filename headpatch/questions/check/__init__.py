"""Are the fast paths exact for this model?"""
