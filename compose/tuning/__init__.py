"""Finding the settings that suit a machine, by measuring; `compose.tune` is the verb.

    points -> search <- judging           what to compare next, and when a comparison is sure
    mill -> duels, door                   what is measured, on a private stack
    advice -> report, picture, saving     what follows from it

`points`, `search`, `judging`, `bounds` and `advice` are pure. Only `compose` imports the package.
"""
