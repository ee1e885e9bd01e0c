"""A service that predicts with one or more bundles over HTTP; the texts of concurrent requests are batched.

limits.py     what is accepted, and the one form of a refusal
measuring.py  the Prometheus metrics, and the middleware that measures requests
guard.py      the middleware that checks the token and the declared size of a body
queue.py      texts of concurrent requests, predicted together
service.py    the classifiers, each with its queue
schemas.py    the JSON that is returned
routes.py     the endpoints
app.py        all of it assembled into a FastAPI application
server.py     loads the bundles, listens, and shuts down gracefully
page.html     the page in the browser, which loads nothing from other sites
"""
