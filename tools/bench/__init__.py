# SPDX-License-Identifier: Apache-2.0
"""The benchmarks as a maintainer's command; they live in feagi_io_host.bench."""
