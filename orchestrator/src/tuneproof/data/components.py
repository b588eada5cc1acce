"""Connected components."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping


def components(links: Mapping[str, Iterable[Hashable]]) -> dict[str, str]:
    """Groups nodes that share a link, directly or through others (union-find).

    Args:
        links: the links of each node; nodes with an equal link belong together.

    Returns:
        For each node the name of its component: the least of the component's nodes.
    """
    parent: dict[str, str] = {node: node for node in links}

    def root_of(node: str) -> str:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    first: dict[Hashable, str] = {}
    for node, values in links.items():
        for value in values:
            one, other = root_of(first.setdefault(value, node)), root_of(node)
            parent[max(one, other)] = min(one, other)
    return {node: root_of(node) for node in links}
