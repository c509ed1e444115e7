"""What the parts of a service have in common."""

from abc import ABC, abstractmethod
from typing import Any, Optional

from ..execution import steps
from ..topology.lifecycle import ServiceLifecycle
from ..topology.routing import RouteResolver


class ServicePart(ABC):
    """What each part of a service builds on: its state, and its implementation's way of
    running plans.
    """

    _lifecycle: ServiceLifecycle
    _resolver: RouteResolver

    @abstractmethod
    def _route(self, until: Optional[float] = None) -> steps.Plan[Any]:
        """The route to the global database."""

    @abstractmethod
    def _run(self, plan: steps.Plan[Any]) -> Any:
        """Run a plan the implementation's way: its result, or a coroutine of it."""

    @abstractmethod
    def _run_exclusive(self, plan: steps.Plan[Any], wait: Optional[float] = None) -> Any:
        """Run a plan while no other such plan of this service runs: opening, loading.

        Another one is waited for, for at most ``wait`` seconds; then nothing is done.
        """

    @abstractmethod
    def _stop(self, timeout: Optional[float]) -> steps.Plan[None]:
        """Close what the service has open."""

    @abstractmethod
    def _run_own(self, plan: steps.Plan[Any]) -> Any:
        """Run a plan with the steps that are a service's own, whatever else runs:
        closing waits for nobody who opens or loads.
        """
