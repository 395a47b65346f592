"""The portal: pages for people with a browser and no command line.

It is a caller of the API like any other, in the same process: whatever a page shows or does is asked of the public routes
with the person's own credential, which the browser keeps in a cookie that only this service can read. It knows nothing of
flows, database, store or clusters.
"""
