"""Recipes: goals that are planned without a model, one family per file.

A recipe matches a whole goal, in English, to the last word: a goal that only resembles one is refused, not guessed at.
Texts are taken literally, placeholders such as `[EMAIL_1]` included.
"""
