"""A trade as ``as_=`` makes it."""

import datetime
from dataclasses import dataclass
from decimal import Decimal
from typing import Optional

import pydantic


@dataclass
class Trade:
    id: int
    user_id: int
    symbol: str
    quantity: int
    price: Decimal
    note: Optional[str]
    created_at: datetime.datetime


class TradeModel(pydantic.BaseModel):
    id: int
    user_id: int
    symbol: str
    quantity: int
    price: Decimal
    note: Optional[str]
    created_at: datetime.datetime
