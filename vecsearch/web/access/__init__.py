"""Who may ask the page and the API.

guard.py     users, hosts, the token, and the security headers
throttle.py  how many wrong tokens may be sent
"""
