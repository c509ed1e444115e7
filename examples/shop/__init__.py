"""A small web application: FastAPI, Celery and a page. ``python examples/shop``"""
