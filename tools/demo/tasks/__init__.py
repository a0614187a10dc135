# SPDX-License-Identifier: Apache-2.0
"""The demo model's tasks, one kind a file.

A task takes a random.Random and returns a Conversation (messages, optional tools, and for single
questions the expected answer). The order of the random calls inside a task is part of its output:
the same seed must give the same text.
"""
