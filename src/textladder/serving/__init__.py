"""A service that answers with one or more bundles: requests to a queue, its texts to a classifier, batch by batch.

app.py      what is asked for and answered, FastAPI
queue.py    texts of concurrent requests, predicted together; what does not fit is refused
guard.py    what stands before all requests: the token, the size of a body, the measuring
server.py   loads the bundles, listens, stops without leaving anyone unanswered
page.html   the page, which asks the service and nobody else
"""
