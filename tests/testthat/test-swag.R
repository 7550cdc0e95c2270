# The R side of SWAG: arguments, columns of intervals, measures, pictures.

swag_model <- function(keras, units = 1L, activation = NULL, normalization = FALSE) {
  keras$utils$set_random_seed(7L)
  layers <- list(keras$layers$Input(list(4L)))
  if (normalization) layers <- c(layers, keras$layers$BatchNormalization())
  model <- keras$Sequential(c(layers, keras$layers$Dense(units, activation = activation)))
  loss <- if (units == 3) "sparse_categorical_crossentropy" else "mse"
  model$compile(keras$optimizers$SGD(0.05), loss = loss, run_eagerly = TRUE)
  model
}

# A regression and a classifier with their posteriors.
train_swag <- function(keras, epochs = 6, ...) {
  model <- swag_model(keras, ...)
  swag <- callback_swag(2, rank = 3)
  model$fit(iris_x, iris_y, epochs = as.integer(epochs), batch_size = 50L, verbose = 0L, callbacks = list(swag))
  list(model = model, swag = swag)
}

for (module in c("keras", "tf_keras")) {
  test_that(paste("callback_swag() collects from start_epoch on, and its methods tell of it:", module), {
    keras <- local_keras(module)
    made <- train_swag(keras, units = 3L, activation = "softmax")
    swag <- made$swag
    expect_equal(swag$snapshots, 5)
    expect_equal(vapply(swag$mean, length, 0L), c(12L, 3L))
    expect_equal(dim(swag$deviations[[1]]), c(3, 4, 3))
    found <- summary(swag, scale = 1)
    expect_s3_class(found, "kerasoptimizers_posterior_summary")
    variance <- as.vector(swag$variance[[2]]) + colSums(as.array(swag$deviations[[2]])^2) / 2
    expect_equal(found$weights$deviation[[2]], stats::median(sqrt(variance)), tolerance = 1e-6)
    expect_equal(found$weights$size, c(12, 3))
    expect_output(print(swag), "Snapshots: +5, of which 3 as deviations")
    expect_output(print(found), "kernel")
    expect_equal(as.data.frame(found), found$weights)
    expect_equal(as.data.frame(swag)$snapshot, c(FALSE, rep(TRUE, 5)))
    expect_false("swag" %in% class(swag))
  })

  test_that(paste("snapshots by hand, a sample for a while, and a file:", module), {
    keras <- local_keras(module)
    model <- swag_model(keras)
    swag <- callback_swag(NULL, rank = 2)
    expect_error(with_sample(swag, model, 1), "SWAG needs 2 snapshots or more to draw weights from, and it has 0")
    for (i in 1:3) {
      model$fit(iris_x, iris_y, epochs = 1L, verbose = 0L)
      collect_snapshot(swag, model)
    }
    own <- weights_of(model)
    mean <- with_sample(swag, model, weights_of(model), scale = 0)
    expect_equal(lapply(mean, as.vector), lapply(swag$mean, as.vector), tolerance = 1e-6)
    set.seed(1)
    drawn <- with_sample(swag, model, weights_of(model))
    set.seed(1)
    expect_identical(with_sample(swag, model, weights_of(model)), drawn)
    expect_false(identical(drawn, with_sample(swag, model, weights_of(model))))
    expect_error(with_sample(swag, model, stop("oh no")), "oh no")
    expect_identical(weights_of(model), own)

    file <- withr::local_tempfile(fileext = ".npz")
    save_posterior(swag, file)
    loaded <- load_posterior(file, model)
    expect_identical(predict_samples(model, loaded, iris_x, 2, seed = 1, verbose = 0),
                     predict_samples(model, swag, iris_x, 2, seed = 1, verbose = 0))
    expect_error(load_posterior(file, swag_model(keras, 2L)), "`model` must have the weights that the snapshots")
    writeLines("no", file)
    expect_error(load_posterior(file), "`path` must be a file that save\\(\\) wrote")
    expect_error(load_posterior("nowhere.npz"), '`path` must be a file, and there is no "nowhere.npz".')
  })

  test_that(paste("predict_samples() takes data frames, lists and batch norm:", module), {
    keras <- local_keras(module)
    made <- train_swag(keras, normalization = TRUE)
    own <- weights_of(made$model)
    frame <- iris[, 1:4]
    samples <- predict_samples(made$model, made$swag, frame, 3, data = frame, seed = 2, verbose = 0)
    expect_equal(dim(samples), c(3, 150, 1))
    expect_equal(samples, predict_samples(made$model, made$swag, iris_x, 3, data = iris_x, seed = 2, verbose = 0))
    two <- predict_samples(made$model, list(a = made$swag, b = made$swag), frame, 2, data = frame, verbose = 0)
    expect_equal(dim(two), c(4, 150, 1))
    ensemble <- predict_samples(list(made$model, swag_model(keras)), NULL, frame, verbose = 0)
    expect_equal(dim(ensemble), c(2, 150, 1))
    expect_equal(ensemble[1, , ], as.vector(made$model$predict(iris_x, verbose = 0L)))
    expect_identical(weights_of(made$model), own)
    expect_error(predict_samples(made$model, made$swag, frame), "`data` must be given: '.*' has batch norm")
    expect_error(predict_samples(made$model, made$swag, iris), "`x` must hold numbers only, and column `Species`")
  })

  test_that(paste("a model with loss_gaussian_nll() knows its noise:", module), {
    keras <- local_keras(module)
    model <- swag_model(keras, 2L)
    model$compile("sgd", loss = loss_gaussian_nll(), run_eagerly = TRUE)
    swag <- callback_swag(2)
    model$fit(iris_x, iris_y, epochs = 4L, verbose = 0L, callbacks = list(swag))
    found <- predict_interval(model, swag, iris_x, type = "pred_int", seed = 1, verbose = 0)
    samples <- predict_samples(model, swag, iris_x, seed = 1, verbose = 0)
    expect_equal(found, predict_interval(samples, type = "pred_int", noise = "log_variance"))
    expect_equal(found$.pred, colMeans(samples[, , 1]))
    expect_equal(found$.pred_variance, colMeans(exp(samples[, , 2])) + apply(samples[, , 1], 2, var) * 29 / 30)
    # The probability of the interval under the mixture.
    between <- function(i, at) mean(pnorm(at, samples[, i, 1], exp(samples[, i, 2] / 2)))
    for (i in c(1, 80)) {
      expect_equal(between(i, found$.pred_lower[[i]]), 0.05, tolerance = 1e-6)
      expect_equal(between(i, found$.pred_upper[[i]]), 0.95, tolerance = 1e-6)
    }
  })
}

set.seed(3)
numbers <- array(rnorm(40 * 6, rep(1:6, each = 40), 0.5), c(40, 6, 1))
chances <- array(rexp(40 * 6 * 3), c(40, 6, 3))
chances <- chances / as.vector(apply(chances, 1:2, sum))

test_that("intervals of numbers have the columns and values of tidymodels", {
  conf <- predict_interval(numbers, level = 0.8)
  expect_named(conf, c(".pred", ".pred_lower", ".pred_upper", ".pred_variance"))
  expect_equal(conf$.pred, colMeans(numbers[, , 1]))
  expect_equal(conf$.pred_upper, apply(numbers[, , 1], 2, quantile, 0.9, names = FALSE))
  expect_equal(conf$.pred_variance, apply(numbers[, , 1], 2, var) * 39 / 40)
  wide <- predict_interval(numbers, level = 0.8, type = "pred_int", noise = 4)
  expect_equal(wide$.pred_variance, conf$.pred_variance + 4)
  expect_true(all(wide$.pred_lower < conf$.pred_lower & wide$.pred_upper > conf$.pred_upper))
  # With one sample the mixture is a Gaussian.
  one <- predict_interval(numbers[1, , , drop = FALSE], level = 0.9, type = "pred_int", noise = 4)
  expect_equal(one$.pred_lower, as.vector(numbers[1, , 1]) + qnorm(0.05) * 2, tolerance = 1e-6)
  # Without noise they are those of the draws.
  expect_equal(predict_interval(numbers, type = "pred_int", noise = 0), predict_interval(numbers))
  quantiles <- predict_interval(numbers, type = "quantile", quantile_levels = c(0.9, 0.5), noise = 4)
  expect_named(quantiles, c(".pred_0.5", ".pred_0.9"))
  expect_equal(quantiles$.pred_0.9, wide$.pred_upper)
  expect_equal(predict_interval(numbers[, , 1]), predict_interval(numbers))
})

test_that("classes and probabilities have the columns and values of tidymodels", {
  classes <- c("a", "b", "c d")
  prob <- predict_interval(chances, type = "prob", classes = classes)
  expect_named(prob, c(".pred_a", ".pred_b", ".pred_c d"))
  expect_equal(unname(as.matrix(prob)), apply(chances, 2:3, mean))
  class <- predict_interval(chances, type = "class", classes = classes)
  expect_equal(class$.pred_class, factor(classes[max.col(as.matrix(prob))], classes))
  expect_equal(levels(predict_interval(chances, type = "class")$.pred_class), c("0", "1", "2"))
  conf <- predict_interval(chances, classes = classes)
  expect_named(conf, c(names(prob), paste0(rep(c(".pred_lower_", ".pred_upper_"), 3), rep(classes, each = 2))))
  expect_equal(conf$.pred_lower_b, apply(chances[, , 2], 2, quantile, 0.05, names = FALSE))
  # One output is the probability of the second class; logits are taken through softmax or sigmoid.
  expect_equal(predict_interval(chances[, , 1], type = "prob")$.pred_1, colMeans(chances[, , 1]))
  expect_equal(predict_interval(log(chances) + 2, type = "prob", logits = TRUE, classes = classes), prob)
  expect_equal(predict_interval(qlogis(chances[, , 1]), type = "prob", logits = TRUE)$.pred_1,
               colMeans(chances[, , 1]))
})

test_that("wrong arguments of predict_interval() stop with one line", {
  expect_error(predict_interval(numbers, level = 1), "`level` must be a number between 0 and 1, not 1.", fixed = TRUE)
  expect_error(predict_interval(numbers, type = "mean"), "`type` must be")
  expect_error(predict_interval(numbers, type = "pred_int"), "`noise` must be given")
  expect_error(predict_interval(numbers, noise = -1), '`noise` must be "log_variance" or a number >= 0, not -1.')
  expect_error(predict_interval(numbers, noise = "log_variance"), "a mean and a log-variance for each example, not 1")
  expect_error(predict_interval(chances), "one number for each example, not 3 numbers")
  expect_error(predict_interval(chances * 3, type = "prob"), "are they logits?")
  expect_error(predict_interval(chances, type = "prob", classes = "a"), "`classes` must be 3 names, not 1.")
  expect_error(predict_interval(chances, type = "prob", classes = c("a", "a", "b")), "`classes` must be")
  expect_error(predict_interval(numbers, quantile_levels = 0), "`quantile_levels` must be numbers between 0 and 1")
  expect_error(predict_interval(numbers, x = 1), "With samples as `model`, leave out")
  expect_error(predict_interval(numbers, lev = 0.5), "There is no argument `lev`")
  expect_error(predict_interval("model"), "`model` must be a Keras model or a list of them")
  expect_warning(predict_interval(numbers, level = 0.99), "40 samples are few for quantiles at level 0.99")
})

test_that("measures are those of the formulas", {
  python_keras()
  p <- rbind(c(0.8, 0.2), c(0.4, 0.6), c(0.5, 0.5))
  found <- measure_probabilities(factor(c("a", "a", "b"), c("a", "b")), p)
  expect_equal(found$nll, -mean(log(c(0.8, 0.4, 0.5))))
  expect_equal(found$brier, (2 * 0.04 + 2 * 0.36 + 2 * 0.25) / 3)
  expect_equal(found[c("accuracy", "ece")], data.frame(accuracy = 1 / 3, ece = 1.3 / 3))
  expect_equal(measure_probabilities(c(0, 0, 1), p[, 2]), found)
  y <- 1:6 + c(-2, 0, 0.5, 9, 0, 1)
  found <- measure_predictions(y, numbers, noise = 1)
  density <- vapply(1:6, function(i) mean(dnorm(y[[i]], numbers[, i, 1], 1)), 0)
  expect_equal(found$nll, -mean(log(density)))
  expect_equal(found$rmse, sqrt(mean((y - colMeans(numbers[, , 1]))^2)))
  expect_equal(found$coverage, 4 / 6)
  intervals <- predict_interval(numbers, type = "pred_int", noise = 1)
  expect_equal(found$width, mean(intervals$.pred_upper - intervals$.pred_lower))
  expect_equal(noise_variance(y, numbers),
               mean((y - colMeans(numbers[, , 1]))^2) - mean(apply(numbers[, , 1], 2, var) * 39 / 40))
  sharp <- apply_temperature(p, 0.5)
  expect_equal(sharp[1, ], c(0.64, 0.04) / 0.68)
  expect_equal(apply_temperature(sharp, 2), p)
  expect_equal(apply_temperature(p[, 2], 0.5), sharp[, 2])
  expect_equal(fit_temperature(c(0, 1, 0, 1), rbind(c(0.8, 0.2), c(0.8, 0.2), c(0.2, 0.8), c(0.2, 0.8))), 1000,
               tolerance = 1e-3)
  expect_error(measure_probabilities(c(0, 1), p), "`y` must hold one label for each of 3 examples.")
  expect_error(measure_probabilities(NULL, p), "`y` must be a factor or whole numbers from 0 on, not NULL.")
  expect_error(measure_probabilities(1:3, "p"), "`probabilities` must be")
  expect_error(apply_temperature(p, 0), "`temperature` must be a number > 0, not 0.")
  expect_error(measure_predictions(1:5, numbers, 1), "`samples` must hold 5 examples, as many as `y`, not 6.")
})

test_that("plot_calibration() shows reliability and coverage", {
  skip_if_not_installed("ggplot2", "3.4.0")
  python_keras()
  p <- runif(4000)
  y <- rbinom(4000, 1, p)
  sure <- p^3 / (p^3 + (1 - p)^3)
  picture <- plot_calibration(y, list(honest = p, sure = sure), bins = 10)
  data <- picture$data
  expect_equal(levels(data$method), c("honest", "sure"))
  expect_equal(sum(data$count[data$method == "sure"]), 4000)
  gap <- with(data, tapply(abs(accuracy - confidence) * count, method, sum)) / 4000
  expect_equal(gap[["sure"]], measure_probabilities(y, sure, bins = 10)$ece)
  expect_lt(gap[["honest"]], gap[["sure"]])
  expect_silent(ggplot2::ggplot_build(picture))

  samples <- matrix(rnorm(4000), 20, 4000, byrow = TRUE)
  y <- samples[1, ] + rnorm(4000)
  picture <- plot_calibration(y, list(honest = samples, sure = samples), noise = list(1, 0.25))
  data <- picture$data
  honest <- data[data$method == "honest", ]
  expect_equal(honest$coverage, honest$level, tolerance = 0.05)
  sure <- data[data$method == "sure", ]
  expect_equal(sure$coverage, 2 * pnorm(qnorm((1 + sure$level) / 2) / 2) - 1, tolerance = 0.1)
  # The same as counting.
  intervals <- predict_interval(samples, level = 0.5, type = "pred_int", noise = 0.25)
  inside <- mean(y >= intervals$.pred_lower & y <= intervals$.pred_upper)
  expect_equal(sure$coverage[sure$level == 0.5], inside)
  expect_silent(ggplot2::ggplot_build(plot_calibration(y, samples, noise = 1)))
  expect_error(plot_calibration(y, list(1, 2)), "`predictions` must be an array, or a list of arrays with")
  expect_error(plot_calibration(y, list(a = samples), noise = list(1, 2)), "`noise` must hold 1 elements")
})

test_that("plot() of a posterior shows how much draws vary", {
  skip_if_not_installed("ggplot2", "3.4.0")
  keras <- local_keras("keras")
  expect_error(plot(callback_swag(2)), "There is nothing to show")
  made <- train_swag(keras)
  picture <- plot(made$swag, scale = 2)
  expect_equal(picture$data$deviation, summary(made$swag, scale = 2)$weights$deviation)
  expect_silent(ggplot2::ggplot_build(picture))
  mine <- plot(made$swag, main = "Mine", xlim = c(0, 1))
  expect_identical(mine$labels$title, "Mine")
  expect_identical(mine$coordinates$limits$x, c(0, 1))
  expect_identical(ggplot2::autoplot(made$swag)$data, plot(made$swag)$data)
  expect_error(plot(made$swag, col = 1), "There is no argument `col`", fixed = TRUE)
})

test_that("wrong arguments stop with one line", {
  keras <- local_keras("keras")
  expect_error(callback_swag(), "`start_epoch` must be given: a whole number >= 2.", fixed = TRUE)
  expect_error(callback_swag(1), "`start_epoch` must be a whole number >= 2, not 1.", fixed = TRUE)
  expect_error(callback_swag(2, rank = -1), "`rank` must be a whole number >= 0, not -1.", fixed = TRUE)
  expect_error(callback_swag(2, lr_schedule = "cyclic"), "`freq` must be a whole number >= 2 with a cyclic schedule")
  expect_error(loss_gaussian_nll(0), "`min_variance` must be a number > 0, not 0.", fixed = TRUE)
  expect_error(collect_snapshot(1, 2), "`posterior` must be a callback of callback_swag(), not 1.", fixed = TRUE)
  expect_error(collect_snapshot(callback_swag(2), 2), "`model` must be a Keras model, not 2.", fixed = TRUE)
  expect_error(predict_samples(list(), NULL, iris_x), "`model` must be a Keras model or a list of them")
  model <- swag_model(keras)
  expect_error(predict_samples(model, 3, iris_x), "`posterior` must be a callback of callback_swag(), a list of",
               fixed = TRUE)
  expect_error(predict_samples(model, NULL, iris_x, samples = 0), "`samples` must be a whole number >= 1, not 0.")
  expect_error(predict_samples(model, NULL, iris_x, seed = -1), "`seed` must be a whole number >= 0, not -1.")
})
