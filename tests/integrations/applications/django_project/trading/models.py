"""Models on the shards."""

from django.db import models


class Order(models.Model):
    number = models.IntegerField(unique=True)
    at = models.TimeField(null=True)

    class Meta:
        db_table = "orders"


class Line(models.Model):
    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="lines")
    text = models.CharField(max_length=50)

    class Meta:
        db_table = "order_lines"
