"""Several hosts behind one name: which is used, what each can do, and what is known of
it. Pure: the pools connect, and report what they found.
"""
