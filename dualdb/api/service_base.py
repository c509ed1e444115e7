"""The common base of the mixins of a service."""

from abc import abstractmethod
from typing import Any, Optional

from ..execution import steps
from ..topology.lifecycle import ServiceLifecycle
from ..topology.routing import RouteResolver
from .interfaces import ServiceInternals
from .target import BaseTarget


class ServicePart(BaseTarget):
    """The state of a service and its methods to run plans, which each mixin uses.

    The service is itself a target: the global database.
    """

    _internals: ServiceInternals
    _lifecycle: ServiceLifecycle
    _resolver: RouteResolver

    @abstractmethod
    def _run_exclusive(self, plan: steps.Plan[Any], wait: Optional[float] = None) -> Any:
        """Run a plan under the lock that serialises opening and loading.

        Args:
            plan: The plan.
            wait: The most seconds to wait for the lock, after which the plan is not
                run; None for no limit.
        """

    @abstractmethod
    def _stop(self, timeout: Optional[float]) -> steps.Plan[None]:
        """Close what the service has open."""

    @abstractmethod
    def _run_own(self, plan: steps.Plan[Any]) -> Any:
        """Run a plan without that lock: closing does not wait for opening or
        loading.
        """
