"""Which adapter versions an engine holds, and when a slot becomes free."""


class AdapterSlots:
    """Reference counts of the adapters in an engine's slots: a pure state machine.

    A version is loaded into a free slot, serves requests, is retired when a newer one has taken over and leaves when
    the last of its requests has ended. vLLM would evict an adapter in use; here nothing enters while no slot is free.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._requests: dict[str, int] = {}
        self._retired: set[str] = set()

    @property
    def held(self) -> frozenset[str]:
        return frozenset(self._requests)

    @property
    def free(self) -> int:
        return self.slots - len(self._requests)

    def occupy(self, name: str) -> None:
        """Take a free slot for a new name; raises ValueError for a name in use or when no slot is free."""
        if name in self._requests:
            raise ValueError(f"adapter {name} is loaded already")
        if not self.free:
            raise ValueError(f"no free slot for adapter {name}: {', '.join(sorted(self.held))} are in use")
        self._requests[name] = 0

    def begin(self, name: str) -> None:
        """Count a request that starts on a version; raises ValueError if that version takes no new requests."""
        if name not in self._requests or name in self._retired:
            raise ValueError(f"adapter {name} is not served: {', '.join(sorted(self.held)) or 'none'} loaded")
        self._requests[name] += 1

    def end(self, name: str) -> bool:
        """Count a request that ended; whether its version has now to be dropped from the engine."""
        self._requests[name] -= 1
        return self._droppable(name)

    def retire(self, name: str) -> bool:
        """Take no more requests for a version; whether it has now to be dropped from the engine."""
        if name not in self._requests:
            raise ValueError(f"adapter {name} cannot be retired: it is not loaded")
        self._retired.add(name)
        return self._droppable(name)

    def vacate(self, name: str) -> None:
        """Free the slot of a version that the engine has dropped."""
        if not self._droppable(name):
            raise ValueError(f"adapter {name} is still in use")
        del self._requests[name]
        self._retired.remove(name)

    def _droppable(self, name: str) -> bool:
        return name in self._retired and self._requests[name] == 0
