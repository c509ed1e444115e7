"""Views of both kinds."""

import datetime
from typing import Any

from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.urls import path

from django_project.shards import adb, db
from django_project.trading.models import Order


def place(request: HttpRequest, number: int) -> JsonResponse:
    """Of every three one fails after it has written."""
    order = Order(number=number, at=datetime.time(12, 30))
    with transaction.atomic(using=alias()):
        order.save()
        order.lines.create(text=f"line of {number}")
        if number % 3 == 1:
            raise ValueError(number)
    return JsonResponse({"number": number})


def alias() -> Any:
    from django.db import router

    return router.db_for_write(Order)


def orders(request: HttpRequest) -> JsonResponse:
    found = [
        [each.number, str(each.at), each._state.db, [line.text for line in each.lines.all()]]
        for each in Order.objects.order_by("number")
    ]
    return JsonResponse({"orders": found, "database": db.current.query_value("SELECT DATABASE()")})


async def orders_async(request: HttpRequest) -> JsonResponse:
    found = [each.number async for each in Order.objects.order_by("number")]
    name = await adb.current.query_value("SELECT DATABASE()")
    return JsonResponse({"orders": found, "database": name})


def duplicate(request: HttpRequest) -> JsonResponse:
    for _ in range(2):
        Order.objects.create(number=-1)
    return JsonResponse({})


def slow(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"found": db.current.query("SELECT SLEEP(50)", timeout=0.2)})


urlpatterns = [
    path("place/<int:number>", place),
    path("orders", orders),
    path("async/orders", orders_async),
    path("duplicate", duplicate),
    path("slow", slow),
]
