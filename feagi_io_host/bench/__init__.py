# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: each row measures ours and a peer side by side in one run."""
