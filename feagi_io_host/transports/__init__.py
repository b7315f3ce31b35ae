# SPDX-License-Identifier: Apache-2.0
"""What moves bytes: one folder per system, none of which knows another.

Other rooms get a transport by name from `registry`; what it promises stands in `endpoint`.
"""
