//! Python bindings of the sft crates: conversion only.
