# Shared by all pictures. Each one is a ggplot whose data a user can see and replace.

require_ggplot2 <- function(call = rlang::caller_env()) {
  if (!rlang::is_installed("ggplot2", version = "3.4.0")) {
    abort(paste("Pictures need the R package ggplot2, version 3.4.0 or newer:",
                'run `install.packages("ggplot2")`.'), call)
  }
}

# Labels and limits as base graphics call them, as parts to add to a ggplot. Nothing else in `...` is dropped
# without a word. `coord` makes the coordinates of a picture that has limits.
base_settings <- function(..., coord = ggplot2::coord_cartesian, call = rlang::caller_env()) {
  if (...length() == 0) return(list())
  given <- list(...)
  for (name in rlang::names2(given)) check_setting(name, given[[name]], call)
  labels <- c(main = "title", sub = "caption", xlab = "x", ylab = "y")
  shown <- given[names(given) %in% names(labels)]
  names(shown) <- labels[names(shown)]
  limits <- given[names(given) %in% c("xlim", "ylim")]
  list(
    if (length(shown) > 0) do.call(ggplot2::labs, shown, quote = TRUE),
    if (length(limits) > 0) do.call(coord, limits)
  )
}

check_setting <- function(name, value, call) {
  if (name %in% c("main", "sub", "xlab", "ylab")) {
    if (!is.null(value) && !is_name(value) && !is.language(value)) {
      refuse(name, "a string, an expression or NULL", value, call)
    }
  } else if (name %in% c("xlim", "ylim")) {
    if (!is.numeric(value) || is.object(value) || length(value) != 2 || !all(is.finite(value)) ||
        value[[1]] >= value[[2]]) {
      refuse(name, "two numbers, the lower one first", value, call)
    }
  } else if (nzchar(name)) {
    abort_argument(sprintf(paste(
      "There is no argument `%s`: plot() takes `main`, `sub`, `xlab`, `ylab`, `xlim` and `ylim`,",
      "and you can add anything of ggplot2 to the picture with `+`."
    ), name), call)
  } else {
    abort_argument("There are too many arguments.", call)
  }
}

# Colors of Okabe and Ito, which color-blind people can tell apart. Each group also has a line type and a
# shape, so that a picture can be read in grey.
looks <- list(
  color = c("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9"),
  line = c("solid", "42", "12", "4212", "82", "2262", "8242"),
  shape = c(16, 17, 15, 18, 1, 2, 0)
)

colors <- c(averages = looks$color[[1]], weights = looks$color[[2]])

# Scales for groups that color, line type and shape tell apart, with one legend. `which` are their looks.
group_scales <- function(groups, title = NULL, which = seq_along(groups)) {
  which <- (which - 1) %% length(looks$color) + 1
  guide <- if (length(groups) > 1) ggplot2::guide_legend(order = 1) else "none"
  scale <- function(make, values) make(name = title, values = rlang::set_names(values[which], groups), guide = guide)
  list(
    scale(ggplot2::scale_color_manual, looks$color),
    scale(ggplot2::scale_linetype_manual, looks$line),
    scale(ggplot2::scale_shape_manual, looks$shape)
  )
}

picture_theme <- function() {
  text <- ggplot2::element_text
  ggplot2::theme_minimal(base_size = 13) + ggplot2::theme(
    panel.grid.minor = ggplot2::element_blank(),
    panel.grid.major = ggplot2::element_line(color = "#E2E2E2", linewidth = 0.4),
    plot.background = ggplot2::element_rect(fill = "white", color = NA),
    plot.title = text(face = "bold", size = ggplot2::rel(1.1)),
    plot.title.position = "plot",
    plot.subtitle = text(color = "#444444"),
    axis.text = text(color = "#333333"),
    strip.text = text(face = "bold", hjust = 0),
    # Room for the last number of an axis.
    plot.margin = ggplot2::margin(6, 14, 6, 6),
    legend.position = "top",
    legend.justification = "left",
    legend.key.width = ggplot2::unit(2.2, "lines")
  )
}

# In a document that is being knitted a progress bar would be text between the results.
show_progress <- function(verbose) verbose && !isTRUE(getOption("knitr.in.progress"))

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
  marks <- if (length(moments) == 0) NULL else if (on_line) {
    ggplot2::geom_point(data = only_marked, color = colors[["averages"]], size = 2)
  } else {
    ggplot2::geom_rug(data = only_marked, color = colors[["averages"]], sides = "b")
  }
  ggplot2::ggplot(data, height) +
    line(color = colors[["weights"]], linewidth = 0.8) +
    marks +
    ggplot2::expand_limits(y = 0) +
    ggplot2::scale_x_continuous(breaks = whole_breaks, labels = format_long) +
    (if (!is_known) ggplot2::scale_y_continuous(NULL, breaks = NULL)) +
    (if (length(moments) > 0) ggplot2::labs(subtitle = paste0(
      if (on_line) "Points" else "Ticks at the bottom", " mark ", mark,
      if (length(shown) < length(moments)) {
        sprintf(" (some of %s)", format_long(length(moments)))
      }, "."
    ))) +
    picture_theme()
}

whole_breaks <- function(limits) unique(floor(pretty(limits)))

format_long <- function(x) {
  text <- format(x, big.mark = ",", scientific = FALSE, trim = TRUE)
  ifelse(is.na(x), NA, text)
}

# The rows that a line needs to look the same, corners among them: from the first row to the last, and then again and
# again the row that is farthest from the line so far (Douglas and Peucker's way), until none is farther off than a
# picture can show.
line_rows <- function(y, most = 2000) {
  n <- length(y)
  if (n <= most) return(seq_len(n))
  known <- is.finite(y)
  gaps <- which(known[-1] != known[-n])
  kept <- coarse <- sort(unique(c(1L, gaps, gaps + 1L, n)))
  y[!known] <- 0
  slack <- 5e-4 * max(abs(y))
  for (round in 1:50) {
    off <- abs(y - stats::approx(kept, y[kept], seq_len(n))$y)
    far <- which(off > slack & known)
    if (length(far) == 0) return(kept)
    pieces <- split(far, findInterval(far, kept))
    kept <- sort(c(kept, vapply(pieces, farthest, 0L, off)))
    if (length(kept) > most) break
    if (length(kept) <= most / 10) coarse <- kept
  }
  # Cycles that are too many to tell apart: what they cover.
  sort(unique(c(coarse, extreme_rows(y, most))))
}

# The row that is farthest off. Of several, as equal cycles have them, the one in the middle: then few rounds do.
farthest <- function(rows, off) {
  rows <- rows[off[rows] >= (1 - 1e-5) * max(off[rows])]
  run <- cumsum(c(1, diff(rows) > 1))
  rows <- rows[run == (max(run) + 1) %/% 2]
  rows[[which.max(off[rows])]]
}

# The first, last, lowest and highest row of each of some hundred pieces.
extreme_rows <- function(y, most) {
  rows <- seq_along(y)
  piece <- (rows - 1) %/% ceiling(4 * length(y) / most)
  by_height <- rows[order(piece, y)]
  ends <- cumsum(rle(piece)$lengths)
  starts <- c(1, ends[-length(ends)] + 1)
  c(starts, ends, by_height[starts], by_height[ends])
}

evenly <- function(rows, most = 2000) {
  if (length(rows) <= most) return(rows)
  rows[round(seq(1, length(rows), length.out = most))]
}
