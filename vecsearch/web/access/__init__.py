"""Who may ask the page and the API, and how much they may send.

bodies.py    the size of what is sent
guard.py     users, hosts, the token, and the security headers
throttle.py  how many wrong tokens may be sent
"""
