// SPDX-License-Identifier: Apache-2.0
// Names that cannot be found in the sources by themselves.
Q(/lib)
