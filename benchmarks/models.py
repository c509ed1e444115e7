"""The tables as Tortoise declares them."""

from tortoise import fields
from tortoise.models import Model


class Account(Model):
    id = fields.BigIntField(primary_key=True)
    email = fields.CharField(max_length=100)
    name = fields.CharField(max_length=100)
    balance = fields.DecimalField(max_digits=12, decimal_places=2)
    created_at = fields.DatetimeField()

    class Meta:
        table = "accounts"


class _Trade(Model):
    id = fields.BigIntField(primary_key=True)
    user_id = fields.BigIntField()
    symbol = fields.CharField(max_length=10)
    quantity = fields.IntField()
    price = fields.DecimalField(max_digits=12, decimal_places=4)
    note = fields.CharField(max_length=100, null=True)
    created_at = fields.DatetimeField()

    class Meta:
        abstract = True


class Trade(_Trade):
    class Meta:
        table = "trades"


class Inserted(_Trade):
    class Meta:
        table = "inserted"
