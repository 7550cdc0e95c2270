# effects.R SUMMARY PICTURE: draws what `make effects` has measured.
#
# SUMMARY is the CSV file of effects_report.py, PICTURE the file to write (.png). The vignette "Which
# averaging, when" sources this file and draws the same.

# Gains over plain SGD with 95 % intervals: a panel for each data set, a line for each method.
plot_effects <- function(effects, methods = unique(effects$method)) {
  titles <- c(
    LetterRecognition = "Letters", Satellite = "Satellite", digits = "Digits", Vowel = "Vowel",
    BostonHousing = "Boston housing"
  )
  # Colours of Okabe and Ito; the shapes tell the same where there is no colour.
  settings <- c("constant", "cosine", "wrong labels", "wrong labels, cosine")
  labels <- c(
    "constant rate", "cosine", "constant rate, 20 % wrong labels", "cosine, 20 % wrong labels"
  )
  # Without an interval where there is one split only.
  shown <- effects[effects$method %in% setdiff(methods, "plain SGD") & is.finite(effects$gain_error), ]
  numbers <- shown$data == "BostonHousing"
  unit <- ifelse(numbers, "RMSE, 1000 $ less", "accuracy, points more")
  shown$panel <- factor(
    paste0(titles[shown$data], "\n", unit),
    unique(paste0(titles[shown$data], "\n", unit)[order(match(shown$data, names(titles)))])
  )
  shown$method <- factor(shown$method, rev(methods))
  # From the bottom to the top, as the methods.
  shown$setting <- factor(shown$setting, rev(settings), rev(labels))
  times <- ifelse(numbers, 1, 100)
  half <- stats::qt(0.975, shown$splits - 1) * shown$gain_error
  shown$low <- times * (shown$gain - half)
  shown$high <- times * (shown$gain + half)
  shown$gain <- times * shown$gain
  # Without this, one method that fails would squeeze all others.
  lowest <- -2.2 * ave(pmax(shown$high, 0.3), shown$panel, FUN = max)
  off <- shown$gain < lowest
  shown$low <- pmax(shown$low, lowest)
  shown <- shown[!off, ]
  aside <- ggplot2::position_dodge(width = 0.75)
  ggplot2::ggplot(
    shown,
    ggplot2::aes(
      .data$gain, .data$method,
      xmin = .data$low, xmax = .data$high, colour = .data$setting, shape = .data$setting
    )
  ) +
    ggplot2::geom_vline(xintercept = 0, colour = "grey40") +
    ggplot2::geom_errorbarh(height = 0, position = aside, linewidth = 0.6) +
    ggplot2::geom_point(position = aside, size = 1.8, fill = "white") +
    ggplot2::facet_wrap(~panel, scales = "free_x", nrow = 2) +
    ggplot2::scale_colour_manual(values = rev(c("#0072B2", "#D55E00", "#56B4E9", "#E69F00"))) +
    ggplot2::scale_shape_manual(values = rev(c(19, 17, 21, 24))) +
    ggplot2::labs(x = "better than plain SGD, with 95 % intervals", y = NULL, colour = NULL, shape = NULL) +
    ggplot2::theme_minimal(base_size = 11) +
    ggplot2::theme(
      legend.position = "bottom", panel.grid.minor = ggplot2::element_blank(),
      panel.border = ggplot2::element_rect(colour = "grey85", fill = NA)
    ) +
    ggplot2::guides(
      colour = ggplot2::guide_legend(nrow = 2, reverse = TRUE),
      shape = ggplot2::guide_legend(nrow = 2, reverse = TRUE)
    )
}

if (sys.nframe() == 0) {
  arguments <- commandArgs(trailingOnly = TRUE)
  if (!requireNamespace("ggplot2", quietly = TRUE)) {
    message("effects: no picture without the R package ggplot2")
    quit(status = 0)
  }
  # png() needs a display unless it draws through cairo or, on macOS, quartz.
  type <- if (capabilities("cairo")) "cairo" else if (capabilities("aqua")) "quartz"
  if (is.null(type)) {
    message("effects: no picture, for this R draws no PNG")
    quit(status = 0)
  }
  png(arguments[2], width = 1170, height = 1040, res = 130, type = type)
  print(plot_effects(read.csv(arguments[1])))
  invisible(dev.off())
}
