"""A film's reading as a DICOM Structured Report: Comprehensive SR, Measurement Report (TID 1500)."""

from collections.abc import Iterator

from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    ComprehensiveSR,
    DeviceObserverIdentifyingAttributes,
    LanguageOfContentItemAndDescendants,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    SourceImageForMeasurementGroup,
    TrackingIdentifier,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from cxredge import __version__
from cxredge.bundle.manifest import Finding, Manifest
from cxredge.imaging.dicom_identity import derived_uid
from cxredge.scan.reading import Reading

NOTICE = "Research use; not a medical device"
# No standard code says "an algorithm gave this score"; a coded diagnosis would say more than the model knows.
_SCHEME = "99CXREDGE"
# Of context group 100, which the template asks for and which has no chest film; also of its earlier editions.
_PROCEDURE = CodedConcept("363679005", "SCT", "Imaging procedure")


def structured_report(source: Dataset, reading: Reading, manifest: Manifest, *, uid: str) -> ComprehensiveSR:
    """The SR document of one film: for each finding its probability, the threshold in force, and whether it is flagged.

    source: as `read_source` gives it; the document lies in its study. Findings stand as text and private codes: a
    finding that was looked for must not be found by a search for patients who have it.
    """
    model_sha256 = reading.model_sha256
    observer = ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=derived_uid("device", model_sha256),
            name="cxredge",
            manufacturer_name="cxredge",
            model_name=manifest.name,
            serial_number=model_sha256[:16],
        ),
    )
    report = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=observer),
        procedure_reported=_PROCEDURE,
        imaging_measurements=list(_groups(source, reading, manifest)),
        title=codes.DCM.ImagingMeasurementReport,
        language_of_content_item_and_descendants=LanguageOfContentItemAndDescendants(
            CodedConcept("en", "RFC5646", "English")
        ),
    )
    document = ComprehensiveSR(
        evidence=[source],
        content=report,
        series_instance_uid=derived_uid("series", uid),
        series_number=9101,
        sop_instance_uid=uid,
        instance_number=1,
        manufacturer="cxredge",
        is_complete=True,
        is_final=False,
        is_verified=False,
        series_description=f"cxredge scores. {NOTICE}",
        manufacturer_model_name=manifest.name,
        software_versions=__version__,
        device_serial_number=model_sha256[:16],
    )
    scheme = Dataset()
    scheme.CodingSchemeDesignator, scheme.CodingSchemeName = _SCHEME, "Words of cxredge reports"
    scheme.CodingSchemeResponsibleOrganization = "cxredge"
    document.CodingSchemeIdentificationSequence = [scheme]
    if "IssuerOfPatientID" in source:
        document.IssuerOfPatientID = source.IssuerOfPatientID
    return document


def _groups(source: Dataset, reading: Reading, manifest: Manifest) -> Iterator[MeasurementsAndQualitativeEvaluations]:
    identity = [f"Model SHA-256 {reading.model_sha256}"]
    accuracy, runtime = manifest.accuracy, _engine_of(reading, manifest)
    caveat = manifest.caveat(runtime)
    measured = [
        f"{manifest.architecture}, {manifest.graph_for(runtime).precision}, cxredge {__version__}",
        f"Mean AUROC {accuracy.compressed.value:.3f} on {accuracy.films} films of {accuracy.source}; change from full"
        f" precision {accuracy.drift.value:+.4f}",
        *([f"Note: {caveat}"] if caveat else []),
        NOTICE,
    ]

    def group(
        name: str, values: dict[str, float], said: list[QualitativeEvaluation], parameters: list[str] = identity
    ) -> MeasurementsAndQualitativeEvaluations:
        algorithm = AlgorithmIdentification(
            name=manifest.name, version=manifest.version, manufacturer="cxredge", parameters=parameters
        )
        return MeasurementsAndQualitativeEvaluations(
            tracking_identifier=TrackingIdentifier(
                uid=derived_uid("group", source.SOPInstanceUID, reading.model_sha256, name), identifier=name
            ),
            algorithm_id=algorithm,
            measurements=[
                Measurement(name=_code(meaning), value=value, unit=codes.UCUM.NoUnits)
                for meaning, value in values.items()
            ],
            qualitative_evaluations=said,
            source_images=[SourceImageForMeasurementGroup(source.SOPClassUID, source.SOPInstanceUID)],
        )

    yield group(
        "Worklist", {}, [_says("Priority", reading.priority.value), _says("Intended use", NOTICE)], identity + measured
    )
    for finding in manifest.findings:
        name, flagged = finding.name.replace("_", " "), reading.flags[finding.name]
        values = {
            "Calibrated probability": round(reading.probabilities[finding.name], 4),
            "Threshold of the flag": round(finding.balanced.threshold, 4),
        }
        yield group(name, values, [_says("Flag", _flag(flagged)), _says("Evidence", _evidence(finding))])


def _engine_of(reading: Reading, manifest: Manifest) -> str:
    """The engine whose own graph gave the scores, told by its hash; "" for the portable model."""
    for runtime, graph in manifest.graphs.items():
        # OpenVINO's weights lie beside the graph.
        weights = graph.file.removesuffix(".xml") + ".bin" if graph.file.endswith(".xml") else graph.file
        if graph.logits != "logits" and manifest.files.get(weights) == reading.model_sha256:
            return runtime
    return ""


def _flag(flagged: bool) -> str:
    return "flagged" if flagged else "not flagged"


def _evidence(finding: Finding) -> str:
    return "experimental, does not drive priority" if finding.experimental else "drives priority"


def _says(name: str, value: str) -> QualitativeEvaluation:
    return QualitativeEvaluation(name=_code(name), value=_code(value))


def _code(meaning: str) -> CodedConcept:
    """A private code; its value is the meaning, cut to the 16 characters a code may have."""
    value = "".join(word.capitalize() for word in meaning.replace(",", " ").replace(";", " ").split())[:16]
    return CodedConcept(value, _SCHEME, meaning)
