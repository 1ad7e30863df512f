"""Models that are solved in closed form: ridge, kernel regression, gene programs, count decoder."""
