"""The dashboard: runs and campaigns as live pages, built on NiceGUI from what the services' streams and lists say.

One direction of dependence: pages → frame, elements, charts → feeds → projection. What each file is for:

====================  =================================================================================================
app                   builds the web application; the one place that lists the pages
services              connections to the inner and the outer service
feeds                 one follower a run or campaign, shared by all open pages; it survives restarts of the services
projection/           pure folds from events to what a page shows: no I/O, no NiceGUI
frame                 what every page has: header, navigation, theme, shortcuts, redrawing of what follows a feed
elements              the few building blocks that pages are made of
charts/               options of the charts
pages/                one module a page, each with ``register(services, feeds)``
static/               style sheet and script, served from here; nothing is fetched from another host
====================  =================================================================================================

Whatever a model, a mechanism or a task wrote is shown as text (``elements.text``, rows of a table), never as HTML.
"""
