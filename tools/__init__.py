# SPDX-License-Identifier: Apache-2.0
"""What a maintainer runs: checks, generators, reports. Not part of an installed feagi-io."""
