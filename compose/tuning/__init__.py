"""Finding the settings that suit a machine, by measuring; `compose.tune` is the verb."""
