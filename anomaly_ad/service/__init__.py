"""The service: verdicts over HTTP, and a page. Needs the extra "serve".

`server` runs it, `app` has the routes.
"""
