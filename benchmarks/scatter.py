"""dualdb over several shards: at once, one after the other, and one alone."""

from typing import Any, List, Tuple, Type

import dualdb

from .peers import ASYNCIO, THREADS, Peer
from .threaded import service_config

#: A question (how many shards, which statement), as it comes through the pipe.
Question = List[Any]


class Scatter(Peer):
    key, title, implementation = "scatter", "dualdb", THREADS

    def open(self) -> Any:
        self.service = dualdb.DatabaseService(service_config(self.server))
        self.service.init_service()

    def close(self) -> Any:
        self.service.close_service()

    def at_once(self, question: Question) -> Any:
        count, sql = question
        return self.service.shards(range(1, count + 1)).query(sql).rows

    def in_turn(self, question: Question) -> Any:
        count, sql = question
        return [
            row for number in range(1, count + 1) for row in self.service.shard(number).query(sql)
        ]


class AsyncScatter(Peer):
    key, title, implementation = "scatter-asyncio", "dualdb", ASYNCIO

    async def open(self) -> Any:
        self.service = dualdb.AsyncDatabaseService(service_config(self.server))
        await self.service.init_service()

    async def close(self) -> Any:
        await self.service.close_service()

    async def at_once(self, question: Question) -> Any:
        count, sql = question
        return (await self.service.shards(range(1, count + 1)).query(sql)).rows

    async def in_turn(self, question: Question) -> Any:
        count, sql = question
        return [
            row
            for number in range(1, count + 1)
            for row in await self.service.shard(number).query(sql)
        ]


PEERS: Tuple[Type[Peer], ...] = (Scatter, AsyncScatter)
