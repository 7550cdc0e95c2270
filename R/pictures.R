# Shared by all pictures. Each one is a ggplot whose data a user can see and replace.

require_ggplot2 <- function(call = rlang::caller_env()) {
  if (!rlang::is_installed("ggplot2", version = "3.4.0")) {
    abort(paste("Pictures need the R package ggplot2, version 3.4.0 or newer:",
                'run `install.packages("ggplot2")`.'), call)
  }
}

# Settings of base graphics, and how the same is done with ggplot2.
ggplot2_ways <- c(
  main = "labs(title = )", sub = "labs(caption = )", xlab = "labs(x = )", ylab = "labs(y = )",
  xlim = "coord_cartesian(xlim = )", ylim = "coord_cartesian(ylim = )"
)

# Nothing in `...` is dropped without a word.
no_more_arguments <- function(..., call = rlang::caller_env()) {
  if (...length() == 0) return(invisible())
  name <- rlang::names2(list(...))[[1]]
  abort_argument(if (name %in% names(ggplot2_ways)) {
    sprintf("There is no argument `%s`: add `ggplot2::%s` to the picture.", name, ggplot2_ways[[name]])
  } else if (nzchar(name)) {
    sprintf("There is no argument `%s`.", name)
  } else {
    "There are too many arguments."
  }, call)
}

# Colors of Okabe and Ito, which color-blind people can tell apart.
colors <- c(weights = "#0072B2", averages = "#D55E00")

picture_theme <- function() {
  ggplot2::theme_minimal() + ggplot2::theme(
    panel.grid.minor = ggplot2::element_blank(),
    plot.title.position = "plot",
    plot.subtitle = ggplot2::element_text(color = "#555555"),
    legend.position = "right"
  )
}

# A line and the moments that a column marks: points on the line, or if there are many, ticks below
# it. Where no height is known the moments stand alone. Long series are thinned: more than some
# thousand rows would only make the picture slow.
draw_line <- function(data, x, y, marked, mark, line = ggplot2::geom_line) {
  .data <- rlang::.data
  is_known <- !all(is.na(data[[y]]))
  moments <- which(data[[marked]])
  shown <- evenly(moments)
  data <- data[sort(unique(c(line_rows(data[[y]]), shown))), , drop = FALSE]
  rownames(data) <- NULL
  height <- if (is_known) ggplot2::aes(.data[[x]], .data[[y]]) else ggplot2::aes(.data[[x]], 0)
  only_marked <- function(data) data[data[[marked]], , drop = FALSE]
  on_line <- length(moments) <= 200
  ggplot2::ggplot(data, height) +
    line(color = colors[["weights"]], linewidth = 0.7) +
    (if (on_line) ggplot2::geom_point(data = only_marked, color = colors[["averages"]], size = 1.6)
     else ggplot2::geom_rug(data = only_marked, color = colors[["averages"]], sides = "b")) +
    ggplot2::expand_limits(y = 0) +
    ggplot2::scale_x_continuous(breaks = whole_breaks, labels = format_long) +
    (if (!is_known) ggplot2::scale_y_continuous(NULL, breaks = NULL)) +
    ggplot2::labs(subtitle = paste0(
      if (on_line) "Points" else "Ticks at the bottom", " mark ", mark,
      if (length(shown) < length(moments)) {
        sprintf(" (some of %s)", format_long(length(moments)))
      }, "."
    )) +
    picture_theme()
}

whole_breaks <- function(limits) unique(floor(pretty(limits)))

format_long <- function(x) {
  text <- format(x, big.mark = ",", scientific = FALSE, trim = TRUE)
  ifelse(is.na(x), NA, text)
}

# The rows that a line needs to look the same: the first, last, lowest and highest of each of some
# hundred pieces. Every hundredth row, for example, would miss short cycles.
line_rows <- function(y, most = 2000) {
  rows <- seq_along(y)
  if (length(y) <= most) return(rows)
  piece <- (rows - 1) %/% ceiling(4 * length(y) / most)
  by_height <- rows[order(piece, y)]
  ends <- cumsum(rle(piece)$lengths)
  starts <- c(1, ends[-length(ends)] + 1)
  sort(unique(c(starts, ends, by_height[starts], by_height[ends])))
}

evenly <- function(rows, most = 2000) {
  if (length(rows) <= most) return(rows)
  rows[round(seq(1, length(rows), length.out = most))]
}

# lintr takes these for ordinary functions, because ggplot2 is only suggested.

#' @rdname plot.kerasoptimizers
#' @exportS3Method ggplot2::autoplot
autoplot.kerasoptimizers.AveragingOptimizer <- function(object, ...) plot(object, ...) # nolint: object_name_linter.

#' @rdname plot.kerasoptimizers
#' @exportS3Method ggplot2::autoplot
autoplot.kerasoptimizers.SWALearningRate <- function(object, ...) plot(object, ...) # nolint: object_name_linter.

#' @rdname plot.kerasoptimizers
#' @exportS3Method ggplot2::autoplot
autoplot.kerasoptimizers.SWACallback <- function(object, ...) plot(object, ...) # nolint: object_name_linter.
